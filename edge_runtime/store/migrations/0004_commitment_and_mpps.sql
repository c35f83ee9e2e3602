-- Storage commitment and modality performed procedure steps (docs/node/commitment-and-mpps.md).
-- States and transitions repeat the tables of edge_runtime/model; tests hold the two together.

-- A row goes as soon as its report has arrived.
CREATE TABLE commitment (
    id                  INTEGER PRIMARY KEY,
    ae_title            TEXT NOT NULL,
    transaction_uid     TEXT NOT NULL,
    address             TEXT NOT NULL,
    wanted              BLOB NOT NULL,
    booked_wall_us      INTEGER NOT NULL,
    patience_boot_id    TEXT NOT NULL,
    patience_mono_us    INTEGER NOT NULL,
    verdict             BLOB,
    UNIQUE (ae_title, transaction_uid)
) STRICT;

CREATE TABLE procedure_step (
    id                  INTEGER PRIMARY KEY,
    sop_instance_uid    TEXT NOT NULL UNIQUE,
    state               TEXT NOT NULL CHECK (state IN ('IN_PROGRESS', 'COMPLETED', 'DISCONTINUED')),
    changes             INTEGER NOT NULL DEFAULT 0 CHECK (changes >= 0),
    relayed             INTEGER NOT NULL CHECK (relayed IN (0, 1)),
    created_wall_us     INTEGER NOT NULL,
    changed_wall_us     INTEGER NOT NULL,
    changed_mono_us     INTEGER NOT NULL,
    changed_boot_id     TEXT NOT NULL
) STRICT;

CREATE INDEX procedure_step_age ON procedure_step (created_wall_us);

CREATE TRIGGER procedure_step_moves BEFORE UPDATE OF state ON procedure_step
WHEN NOT (OLD.state = NEW.state
    OR (OLD.state = 'IN_PROGRESS' AND NEW.state IN ('COMPLETED', 'DISCONTINUED')))
BEGIN
    SELECT RAISE(ABORT, 'illegal procedure step transition');
END;

CREATE TABLE procedure_step_study (
    study_instance_uid  TEXT NOT NULL,
    step_id             INTEGER NOT NULL REFERENCES procedure_step (id) ON DELETE CASCADE,
    PRIMARY KEY (study_instance_uid, step_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX procedure_step_study_step ON procedure_step_study (step_id);

CREATE TABLE procedure_step_reference (
    step_id             INTEGER NOT NULL REFERENCES procedure_step (id) ON DELETE CASCADE,
    sop_instance_uid    TEXT NOT NULL,
    series_instance_uid TEXT NOT NULL,
    is_image            INTEGER NOT NULL CHECK (is_image IN (0, 1)),
    PRIMARY KEY (step_id, sop_instance_uid)
) STRICT, WITHOUT ROWID;

CREATE TABLE errand (
    id                  INTEGER PRIMARY KEY,
    kind                TEXT NOT NULL CHECK (kind IN ('commitment_report', 'mpps_relay')),
    state               TEXT NOT NULL CHECK (state IN ('PENDING', 'DONE', 'DEAD')),
    peer                TEXT NOT NULL,
    commitment_id       INTEGER UNIQUE REFERENCES commitment (id) ON DELETE CASCADE,
    step_id             INTEGER REFERENCES procedure_step (id) ON DELETE CASCADE,
    attempts            INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_boot_id         TEXT NOT NULL,
    due_mono_us         INTEGER NOT NULL,
    error_code          TEXT,
    lease_owner         TEXT,
    lease_boot_id       TEXT,
    lease_until_mono_us INTEGER,
    CHECK ((kind = 'commitment_report') = (commitment_id IS NOT NULL)),
    CHECK ((kind = 'mpps_relay') = (step_id IS NOT NULL)),
    CHECK (lease_owner IS NULL OR state = 'PENDING'),
    CHECK ((lease_owner IS NULL) = (lease_until_mono_us IS NULL)),
    CHECK ((lease_owner IS NULL) = (lease_boot_id IS NULL)),
    CHECK (state <> 'DEAD' OR error_code IS NOT NULL)
) STRICT;

CREATE INDEX errand_pending ON errand (kind, due_mono_us) WHERE state = 'PENDING';
CREATE INDEX errand_unfinished ON errand (step_id) WHERE state <> 'DONE';
CREATE INDEX errand_step ON errand (step_id);

CREATE TRIGGER errand_moves BEFORE UPDATE OF state ON errand
WHEN NOT (OLD.state = NEW.state
    OR (OLD.state = 'PENDING' AND NEW.state IN ('DONE', 'DEAD'))
    OR (OLD.state = 'DEAD' AND NEW.state = 'PENDING'))
BEGIN
    SELECT RAISE(ABORT, 'illegal errand transition');
END;

-- Holds the patient's identity: a row goes as soon as the peer upstream has it.
CREATE TABLE procedure_step_message (
    errand_id           INTEGER PRIMARY KEY REFERENCES errand (id) ON DELETE CASCADE,
    operation           TEXT NOT NULL CHECK (operation IN ('N-CREATE', 'N-SET')),
    transfer_syntax_uid TEXT NOT NULL,
    data_set            BLOB NOT NULL
) STRICT;

-- A commitment names instances without their study.
CREATE INDEX instance_sop ON instance (sop_instance_uid);

-- Retention keeps a study until then: a peer was told that we hold it.
ALTER TABLE study ADD COLUMN held_until_wall_us INTEGER NOT NULL DEFAULT 0;

-- The scanner broke the examination off, so that no model looks at this revision.
ALTER TABLE study ADD COLUMN is_discontinued INTEGER NOT NULL DEFAULT 0
    CHECK (is_discontinued IN (0, 1));
