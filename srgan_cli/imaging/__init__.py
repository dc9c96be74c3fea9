"""Reading, describing and writing pictures. Knows nothing of networks."""
