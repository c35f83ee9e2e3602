-- Model packages, who approved them, and shadow models (docs/models/lifecycle.md).
-- States and transitions repeat the table of edge_runtime/model/model_package.py.

CREATE TABLE model_package (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    digest            TEXT NOT NULL UNIQUE
                          CHECK (length(digest) = 64 AND digest NOT GLOB '*[^0-9a-f]*'),
    name              TEXT NOT NULL,
    version           TEXT NOT NULL,
    demonstration     INTEGER NOT NULL CHECK (demonstration IN (0, 1)),
    state             TEXT NOT NULL CHECK (state IN ('INSTALLED', 'VERIFIED', 'REFUSED',
                          'APPROVED', 'SHADOW', 'ACTIVE', 'RETIRED')),
    refusal           TEXT NOT NULL DEFAULT '',
    -- What a rollback returns to.
    is_fallback       INTEGER NOT NULL DEFAULT 0 CHECK (is_fallback IN (0, 1)),
    -- Its files are to go, or gone.
    is_removed        INTEGER NOT NULL DEFAULT 0 CHECK (is_removed IN (0, 1)),
    installed_wall_us INTEGER NOT NULL,
    moved_wall_us     INTEGER NOT NULL,
    moved_by          TEXT NOT NULL,
    -- A change of any byte is a new version.
    UNIQUE (name, version),
    CHECK ((state = 'REFUSED') = (refusal <> '')),
    CHECK (is_fallback = 0 OR (state = 'RETIRED' AND is_removed = 0)),
    CHECK (is_removed = 0 OR state IN ('RETIRED', 'REFUSED'))
) STRICT;

CREATE UNIQUE INDEX model_package_active ON model_package (name) WHERE state = 'ACTIVE';
CREATE UNIQUE INDEX model_package_shadow ON model_package (name) WHERE state = 'SHADOW';
CREATE UNIQUE INDEX model_package_fallback ON model_package (name) WHERE is_fallback = 1;

CREATE TABLE model_approval (
    package_id   INTEGER NOT NULL REFERENCES model_package (id),
    -- The name in the form in which names are compared.
    person_key   TEXT NOT NULL CHECK (person_key <> ''),
    person       TEXT NOT NULL,
    note         TEXT NOT NULL,
    account      TEXT NOT NULL,
    wall_us      INTEGER NOT NULL,
    PRIMARY KEY (package_id, person_key)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER model_package_begins BEFORE INSERT ON model_package WHEN NEW.state <> 'INSTALLED'
BEGIN
    SELECT RAISE(ABORT, 'a model package begins as installed');
END;

CREATE TRIGGER model_package_moves BEFORE UPDATE OF state ON model_package
WHEN NOT (OLD.state = NEW.state
    OR (OLD.state = 'INSTALLED' AND NEW.state IN ('VERIFIED', 'REFUSED', 'RETIRED'))
    OR (OLD.state = 'VERIFIED' AND NEW.state IN ('APPROVED', 'RETIRED'))
    OR (OLD.state = 'APPROVED' AND NEW.state IN ('SHADOW', 'ACTIVE', 'RETIRED'))
    OR (OLD.state = 'SHADOW' AND NEW.state IN ('ACTIVE', 'RETIRED'))
    OR (OLD.state = 'ACTIVE' AND NEW.state = 'RETIRED')
    OR (OLD.state = 'REFUSED' AND NEW.state = 'INSTALLED')
    OR (OLD.state = 'RETIRED' AND NEW.state IN ('ACTIVE', 'INSTALLED')))
BEGIN
    SELECT RAISE(ABORT, 'illegal model package transition');
END;

-- Whatever the settings say: what is no demonstration looks at patients only after a person agreed.
CREATE TRIGGER model_package_approved BEFORE UPDATE OF state ON model_package
WHEN NEW.demonstration = 0 AND NEW.state IN ('APPROVED', 'SHADOW', 'ACTIVE')
    AND NOT EXISTS (SELECT 1 FROM model_approval WHERE package_id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'nobody has approved the model package');
END;

-- What a package is never changes.
CREATE TRIGGER model_package_stays BEFORE UPDATE OF digest, name, version, demonstration
ON model_package
WHEN OLD.digest <> NEW.digest OR OLD.name <> NEW.name OR OLD.version <> NEW.version
    OR OLD.demonstration <> NEW.demonstration
BEGIN
    SELECT RAISE(ABORT, 'a model package is what it is');
END;

-- The last entry of the audit chain whose effect stands in this database.
CREATE TABLE audit_head (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    seq   INTEGER NOT NULL CHECK (seq >= 1),
    hash  TEXT NOT NULL CHECK (length(hash) = 64)
) STRICT;

CREATE TRIGGER audit_head_advances BEFORE UPDATE ON audit_head WHEN NEW.seq <> OLD.seq + 1
BEGIN
    SELECT RAISE(ABORT, 'the audit chain has no gaps and does not go back');
END;

-- A model and its shadow look at the same revision of a study, so the rows of analysis need another
-- UNIQUE; SQLite changes none in place (sqlite.org/lang_altertable.html, section 7). Deliveries that
-- point at the rows find them again before the transaction ends.
PRAGMA defer_foreign_keys = ON;
CREATE TEMP TABLE old_analysis AS SELECT * FROM analysis;
CREATE TEMP TABLE old_number AS SELECT seq FROM sqlite_sequence WHERE name = 'analysis';
DROP TABLE analysis;

CREATE TABLE analysis (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    study_id            INTEGER NOT NULL REFERENCES study (id),
    revision            INTEGER NOT NULL CHECK (revision >= 1),
    model_name          TEXT NOT NULL,
    model_version       TEXT NOT NULL,
    urgency             INTEGER NOT NULL CHECK (urgency BETWEEN 0 AND 3),
    state               TEXT NOT NULL CHECK (state IN ('QUEUED', 'RUNNING', 'SUSPECTED',
                            'NOT_SUSPECTED', 'NOT_ANALYSED', 'FAILED', 'SUPERSEDED')),
    outcome             TEXT CHECK (outcome IN
                            ('SUSPECTED', 'NOT_SUSPECTED', 'NOT_ANALYSED', 'FAILED')),
    reason_code         TEXT,
    reason_detail       TEXT NOT NULL DEFAULT '',
    probability         REAL CHECK (probability BETWEEN 0 AND 1),
    threshold           REAL CHECK (threshold BETWEEN 0 AND 1),
    series_instance_uid TEXT,
    engine              TEXT,
    queued_wall_us      INTEGER NOT NULL,
    decided_wall_us     INTEGER,
    attempts            INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    lease_owner         TEXT,
    lease_boot_id       TEXT,
    lease_until_mono_us INTEGER,
    is_shadow           INTEGER NOT NULL DEFAULT 0 CHECK (is_shadow IN (0, 1)),
    UNIQUE (study_id, model_name, revision, is_shadow),
    -- A shadow raises nothing, and what it does can wait.
    CHECK (is_shadow = 0 OR urgency = 0),
    CHECK ((state = 'RUNNING') = (lease_owner IS NOT NULL)),
    CHECK ((lease_owner IS NULL) = (lease_until_mono_us IS NULL)),
    CHECK ((lease_owner IS NULL) = (lease_boot_id IS NULL)),
    CHECK (state NOT IN ('QUEUED', 'RUNNING') OR outcome IS NULL),
    CHECK (state NOT IN ('SUSPECTED', 'NOT_SUSPECTED', 'NOT_ANALYSED', 'FAILED')
           OR outcome = state),
    CHECK (outcome IS NULL OR (outcome IN ('NOT_ANALYSED', 'FAILED')) = (reason_code IS NOT NULL)),
    CHECK (outcome IS NULL OR (outcome IN ('SUSPECTED', 'NOT_SUSPECTED'))
           = (probability IS NOT NULL AND threshold IS NOT NULL)),
    CHECK ((outcome IS NULL) = (decided_wall_us IS NULL))
) STRICT;

INSERT INTO analysis SELECT *, 0 FROM old_analysis;
DELETE FROM sqlite_sequence WHERE name = 'analysis';
INSERT INTO sqlite_sequence (name, seq) SELECT 'analysis', seq FROM old_number;
DROP TABLE old_analysis;
DROP TABLE old_number;

CREATE INDEX analysis_waiting ON analysis (urgency DESC, id) WHERE state IN ('QUEUED', 'RUNNING');

CREATE TRIGGER analysis_moves BEFORE UPDATE OF state ON analysis
WHEN NOT (OLD.state = NEW.state
    OR (OLD.state = 'QUEUED' AND NEW.state IN ('RUNNING', 'SUPERSEDED'))
    OR (OLD.state = 'RUNNING' AND NEW.state IN ('QUEUED', 'SUSPECTED', 'NOT_SUSPECTED',
            'NOT_ANALYSED', 'FAILED', 'SUPERSEDED'))
    OR (OLD.state IN ('SUSPECTED', 'NOT_SUSPECTED', 'NOT_ANALYSED', 'FAILED')
            AND NEW.state = 'SUPERSEDED'))
BEGIN
    SELECT RAISE(ABORT, 'illegal analysis transition');
END;

CREATE TRIGGER shadow_tells_nobody BEFORE INSERT ON delivery
WHEN (SELECT is_shadow FROM analysis WHERE id = NEW.analysis_id) = 1
BEGIN
    SELECT RAISE(ABORT, 'the result of a shadow model leaves the device by no channel');
END;
