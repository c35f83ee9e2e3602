-- Why the processor prepares images that the model's engine could take from a device.
ALTER TABLE engine_in_use ADD COLUMN preparation_obstacle TEXT NOT NULL DEFAULT '';
