-- Which engine runs each model, as the worker last said, and which engines it was taken in place of.
CREATE TABLE engine_in_use (
    model_key     TEXT PRIMARY KEY,
    -- Empty where none runs: then every analysis by the model fails, and the refusal says why.
    engine        TEXT NOT NULL,
    refusal       TEXT NOT NULL,
    since_wall_us INTEGER NOT NULL,
    CHECK ((engine = '') = (refusal <> ''))
) STRICT, WITHOUT ROWID;

CREATE TABLE engine_passed_over (
    model_key TEXT NOT NULL REFERENCES engine_in_use (model_key) ON DELETE CASCADE,
    -- In the site's order of preference.
    place     INTEGER NOT NULL CHECK (place >= 0),
    backend   TEXT NOT NULL,
    obstacle  TEXT NOT NULL CHECK (obstacle IN
                  ('not_available', 'out_of_memory', 'not_reproduced', 'failed')),
    detail    TEXT NOT NULL,
    PRIMARY KEY (model_key, place),
    UNIQUE (model_key, backend)
) STRICT, WITHOUT ROWID;
