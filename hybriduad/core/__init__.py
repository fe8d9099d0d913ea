"""What every room uses: errors, data types, keyed randomness, the plug-in registry, drawing."""
