"""The top floor: training, evaluation and export as functions. Jobs parse flags and call these."""
