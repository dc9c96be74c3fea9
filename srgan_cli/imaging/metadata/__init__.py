"""What travels beside the pixels, and how it is put into files."""
