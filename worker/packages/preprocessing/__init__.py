"""The one function from pixels to the input of a network; training calls the very same."""
