"""The DICOM side of the device: storage SCP, spool, headers, and the SCU."""
