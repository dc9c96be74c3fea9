"""Reading, describing and writing pictures. Independent of the networks."""
