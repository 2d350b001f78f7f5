"""m2net: multi-task, multi-instance learning from chest studies with few labels."""

__version__ = "0.1.0"
