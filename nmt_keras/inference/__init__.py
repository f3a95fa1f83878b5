"""From a trained model to text: translation, evaluation, export."""
