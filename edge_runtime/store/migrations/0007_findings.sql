-- A model may look for several things at once. The analysis keeps the numbers of the finding that
-- speaks for all; here stand all of them, in the package's order.
CREATE TABLE finding (
    analysis_id INTEGER NOT NULL REFERENCES analysis (id) ON DELETE CASCADE,
    place       INTEGER NOT NULL CHECK (place >= 0),
    key         TEXT NOT NULL,
    probability REAL NOT NULL CHECK (probability BETWEEN 0 AND 1),
    threshold   REAL NOT NULL CHECK (threshold BETWEEN 0 AND 1),
    urgency     INTEGER NOT NULL CHECK (urgency BETWEEN 1 AND 3),
    PRIMARY KEY (analysis_id, place),
    UNIQUE (analysis_id, key)
) STRICT, WITHOUT ROWID;
