-- The way of a study (DESIGN.md section 2). Times are microseconds: *_wall_us since the epoch (UTC),
-- *_mono_us on CLOCK_BOOTTIME, comparable only within one boot_id.
-- States and transitions repeat the tables of edge_runtime/model; tests hold the two together.

CREATE TABLE device (
    id               INTEGER PRIMARY KEY CHECK (id = 1),
    device_id        TEXT NOT NULL CHECK (length(device_id) BETWEEN 8 AND 32),
    uid_root_token   TEXT NOT NULL,
    boots            INTEGER NOT NULL DEFAULT 0 CHECK (boots >= 0)
) STRICT;

CREATE TABLE association (
    id               TEXT PRIMARY KEY,
    calling_ae_title TEXT NOT NULL,
    address          TEXT NOT NULL,
    opened_wall_us   INTEGER NOT NULL,
    opened_mono_us   INTEGER NOT NULL,
    boot_id          TEXT NOT NULL,
    ended            TEXT CHECK (ended IN ('released', 'aborted', 'lost')),
    ended_wall_us    INTEGER,
    ended_mono_us    INTEGER,
    CHECK ((ended IS NULL) = (ended_wall_us IS NULL)),
    CHECK ((ended IS NULL) = (ended_mono_us IS NULL))
) STRICT;

CREATE TABLE study (
    id                 INTEGER PRIMARY KEY,
    study_key          TEXT NOT NULL UNIQUE,
    study_instance_uid TEXT NOT NULL UNIQUE,
    identity           TEXT NOT NULL CHECK (json_valid(identity)),
    state              TEXT NOT NULL CHECK (state IN ('RECEIVING', 'COMPLETE')),
    completion_reason  TEXT CHECK (completion_reason IN
                           ('mpps', 'counts', 'geometry', 'association', 'quiet', 'forced')),
    revision           INTEGER NOT NULL CHECK (revision >= 1),
    raised             INTEGER NOT NULL DEFAULT 0 CHECK (raised BETWEEN 0 AND 3),
    received_wall_us   INTEGER NOT NULL,
    instances          INTEGER NOT NULL DEFAULT 0 CHECK (instances >= 0),
    CHECK ((state = 'COMPLETE') = (completion_reason IS NOT NULL))
) STRICT;

CREATE INDEX study_receiving ON study (id) WHERE state = 'RECEIVING';
CREATE INDEX study_worklist ON study (raised DESC, received_wall_us);

CREATE TRIGGER study_moves BEFORE UPDATE OF state ON study
WHEN NOT (OLD.state = NEW.state
    OR (OLD.state = 'RECEIVING' AND NEW.state = 'COMPLETE' AND NEW.revision = OLD.revision)
    OR (OLD.state = 'COMPLETE' AND NEW.state = 'RECEIVING' AND NEW.revision = OLD.revision + 1))
BEGIN
    SELECT RAISE(ABORT, 'illegal study transition');
END;

-- Nothing lowers a priority (DESIGN.md section 3.3).
CREATE TRIGGER study_keeps_priority BEFORE UPDATE OF raised ON study
WHEN NEW.raised < OLD.raised
BEGIN
    SELECT RAISE(ABORT, 'a raised priority is never lowered');
END;

CREATE TABLE instance (
    id                  INTEGER PRIMARY KEY,
    study_id            INTEGER NOT NULL REFERENCES study (id),
    revision            INTEGER NOT NULL CHECK (revision >= 1),
    series_instance_uid TEXT NOT NULL,
    sop_instance_uid    TEXT NOT NULL,
    header              TEXT NOT NULL CHECK (json_valid(header)),
    path                TEXT NOT NULL UNIQUE,
    file_bytes          INTEGER NOT NULL CHECK (file_bytes > 0),
    data_set_digest     TEXT NOT NULL,
    association_id      TEXT REFERENCES association (id),
    stored_wall_us      INTEGER NOT NULL,
    stored_mono_us      INTEGER NOT NULL,
    UNIQUE (study_id, series_instance_uid, sop_instance_uid)
) STRICT;

CREATE INDEX instance_association ON instance (association_id, study_id);

CREATE TABLE quarantine (
    id               INTEGER PRIMARY KEY,
    instance_id      INTEGER NOT NULL REFERENCES instance (id),
    path             TEXT NOT NULL UNIQUE,
    data_set_digest  TEXT NOT NULL,
    association_id   TEXT REFERENCES association (id),
    stored_wall_us   INTEGER NOT NULL,
    UNIQUE (instance_id, data_set_digest)
) STRICT;

CREATE TABLE analysis (
    id                  INTEGER PRIMARY KEY,
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
    UNIQUE (study_id, model_name, revision),
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

CREATE TABLE delivery (
    id                  INTEGER PRIMARY KEY,
    analysis_id         INTEGER NOT NULL REFERENCES analysis (id),
    channel             TEXT NOT NULL CHECK (channel IN
                            ('structured_report', 'forward', 'telemetry')),
    state               TEXT NOT NULL CHECK (state IN ('PENDING', 'SENT', 'CONFIRMED', 'DEAD')),
    attempts            INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_boot_id         TEXT NOT NULL,
    due_mono_us         INTEGER NOT NULL,
    error_code          TEXT,
    lease_owner         TEXT,
    lease_boot_id       TEXT,
    lease_until_mono_us INTEGER,
    UNIQUE (analysis_id, channel),
    CHECK (lease_owner IS NULL OR state = 'PENDING'),
    CHECK ((lease_owner IS NULL) = (lease_until_mono_us IS NULL)),
    CHECK ((lease_owner IS NULL) = (lease_boot_id IS NULL)),
    CHECK (state <> 'DEAD' OR error_code IS NOT NULL)
) STRICT;

CREATE INDEX delivery_pending ON delivery (channel) WHERE state = 'PENDING';
CREATE INDEX delivery_unvouched ON delivery (id) WHERE state = 'SENT';

CREATE TRIGGER delivery_moves BEFORE UPDATE OF state ON delivery
WHEN NOT (OLD.state = NEW.state
    OR (OLD.state = 'PENDING' AND NEW.state IN ('SENT', 'DEAD'))
    OR (OLD.state = 'SENT' AND NEW.state IN ('CONFIRMED', 'PENDING', 'DEAD'))
    OR (OLD.state = 'DEAD' AND NEW.state = 'PENDING'))
BEGIN
    SELECT RAISE(ABORT, 'illegal delivery transition');
END;

-- The clock of a study. A mark is stamped once; only last_stored moves on.
CREATE TABLE stamp (
    study_id     INTEGER NOT NULL REFERENCES study (id),
    revision     INTEGER NOT NULL CHECK (revision >= 1),
    mark         TEXT NOT NULL CHECK (mark IN ('first_stored', 'last_stored', 'complete', 'started',
                     'decided', 'sent', 'confirmed', 'first_seen', 'acknowledged')),
    subject      TEXT NOT NULL DEFAULT '',
    wall_us      INTEGER NOT NULL,
    mono_us      INTEGER NOT NULL,
    boot_id      TEXT NOT NULL,
    clock_synced INTEGER NOT NULL CHECK (clock_synced IN (0, 1)),
    PRIMARY KEY (study_id, revision, mark, subject)
) STRICT, WITHOUT ROWID;

CREATE TABLE alarm (
    id               INTEGER PRIMARY KEY,
    code             TEXT NOT NULL,
    study_id         INTEGER REFERENCES study (id),
    subject          TEXT NOT NULL DEFAULT '',
    raised_wall_us   INTEGER NOT NULL,
    cleared_wall_us  INTEGER
) STRICT;

CREATE UNIQUE INDEX alarm_standing ON alarm (code, subject) WHERE cleared_wall_us IS NULL;

CREATE TABLE process (
    role          TEXT PRIMARY KEY CHECK (role IN ('node', 'worker', 'courier', 'web')),
    pid           INTEGER NOT NULL,
    started_wall_us INTEGER NOT NULL,
    beat_wall_us  INTEGER NOT NULL,
    rss_bytes     INTEGER NOT NULL CHECK (rss_bytes >= 0),
    peak_rss_bytes INTEGER NOT NULL CHECK (peak_rss_bytes >= 0)
) STRICT;
