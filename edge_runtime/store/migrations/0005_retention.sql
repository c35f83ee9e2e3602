-- Retention: studies leave the device, and what is left of them (docs/node/retention.md).

-- The time that has certainly passed, whatever the wall clock was set to: see model/holding.py.
CREATE TABLE age_clock (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    age_us       INTEGER NOT NULL CHECK (age_us >= 0),
    wall_us      INTEGER NOT NULL,
    mono_us      INTEGER NOT NULL,
    boot_id      TEXT NOT NULL,
    clock_synced INTEGER NOT NULL CHECK (clock_synced IN (0, 1))
) STRICT;

-- When retention first met a revision that was complete and decided, on the clock above.
CREATE TABLE settled (
    study_id     INTEGER PRIMARY KEY REFERENCES study (id) ON DELETE CASCADE,
    revision     INTEGER NOT NULL CHECK (revision >= 1),
    since_us     INTEGER NOT NULL
) STRICT;

-- Files in quarantine that no row knows, and when retention first met them.
CREATE TABLE stray (
    path         TEXT PRIMARY KEY,
    since_us     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Dead deliveries that a person let go: they no longer keep their study here.
CREATE TABLE released (
    delivery_id  INTEGER PRIMARY KEY REFERENCES delivery (id) ON DELETE CASCADE
) STRICT;

CREATE TRIGGER delivery_resent AFTER UPDATE OF state ON delivery WHEN NEW.state = 'PENDING'
BEGIN
    DELETE FROM released WHERE delivery_id = NEW.id;
END;

-- A study that has begun to leave is finished, at the next start if need be.
CREATE TABLE departing (
    study_id     INTEGER PRIMARY KEY REFERENCES study (id)
) STRICT;

-- Files whose row is gone: they are deleted before the start-up scan could take them for new ones.
CREATE TABLE spool_removal (
    path         TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- A keyed hash in place of the Study Instance UID: it tells nothing of a patient.
CREATE TABLE departed (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    study_hash   BLOB NOT NULL UNIQUE CHECK (length(study_hash) = 16),
    revision     INTEGER NOT NULL CHECK (revision >= 1)
) STRICT;

CREATE INDEX alarm_study ON alarm (study_id) WHERE study_id IS NOT NULL;

-- Rows leave now, and no number may come again: the worker follows instance.id upwards, prepared
-- slices and telemetry events carry ids. AUTOINCREMENT changes nothing in the stored rows, so the
-- text of the schema is all there is to change (sqlite.org/lang_altertable.html, section 7).
PRAGMA writable_schema = ON;
UPDATE sqlite_schema
SET sql = replace(sql, 'INTEGER PRIMARY KEY,', 'INTEGER PRIMARY KEY AUTOINCREMENT,')
WHERE type = 'table' AND name IN ('study', 'instance', 'analysis', 'delivery', 'errand');
PRAGMA writable_schema = RESET;
-- A change of the schema by statement, so that open connections read it anew.
CREATE INDEX settled_since ON settled (since_us, study_id);
