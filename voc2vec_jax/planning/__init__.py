"""What a program takes on a machine that is not there: compiled for it, counted, and compared with its figures."""
