"""What comes from other programs and goes to them: DICOM in and out, files for the next tool of a lab."""
