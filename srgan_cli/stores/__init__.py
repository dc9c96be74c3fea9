"""Object stores and web servers, by URL, through fsspec. Not used for local files."""
