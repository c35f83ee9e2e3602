"""The DICOM conformance statement, put together from the tables that the code runs by."""
