"""What a release consists of, built and tried: the wheel, the images, and an upgrade from the last release and back."""
