"""An HTTP server for a trained model, with a page to try it."""
