"""Object stores and web servers, by their URLs, through fsspec. It has nothing to do with files of this machine."""
