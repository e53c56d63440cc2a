"""What the listener, the worker, training and the commands share; never imports TensorFlow."""
