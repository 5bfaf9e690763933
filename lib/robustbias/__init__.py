"""How adversarial training changes what convolutional networks see: measures, training, book."""

__version__ = "0.2.0"
