"""What the lab's pods can run: a catalogue of images, and the programs that only the lab has."""
