-- Duplicates are compared byte by byte when they arrive (decision record 0011): a digest of every
-- instance cost more processor time than all else that a store does.
ALTER TABLE instance DROP COLUMN data_set_digest;
