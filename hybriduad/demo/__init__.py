"""The whole chain on made-up brains."""
