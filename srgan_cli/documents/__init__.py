"""Files of many pictures: the pages of a TIFF, the frames of an animation, the pictures of an archive or a PDF."""
