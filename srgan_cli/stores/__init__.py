"""Object stores and web servers, by their URLs, through fsspec. What is on this machine is none of its business."""
