"""English to Chinese on text that the project makes itself."""
