"""Every system in one table: trained, tested and compared under the same splits."""
