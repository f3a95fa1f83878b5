"""Neural machine translation on TensorFlow and Keras 3: models, search, training, data plan and export."""
