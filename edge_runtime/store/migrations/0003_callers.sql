-- Callers that the learning mode has met: who called without being admitted, and why.
-- Rows are bounded in number; the words of "reason" are those of RefusalReason and HandshakeFault.

CREATE TABLE caller (
    id                 INTEGER PRIMARY KEY,
    calling_ae_title   TEXT NOT NULL CHECK (length(calling_ae_title) <= 16),
    called_ae_title    TEXT NOT NULL CHECK (length(called_ae_title) <= 16),
    address            TEXT NOT NULL CHECK (length(address) <= 45),
    encrypted          INTEGER NOT NULL CHECK (encrypted IN (0, 1)),
    certificate_sha256 TEXT NOT NULL CHECK (length(certificate_sha256) IN (0, 64)),
    reason             TEXT NOT NULL CHECK (reason IN
                           ('CALLED_AE_TITLE', 'CALLING_AE_TITLE', 'ADDRESS', 'CLEAR_TEXT',
                            'CERTIFICATE', 'NO_TLS', 'OLD_VERSION', 'NO_SHARED_SUITE',
                            'NO_CERTIFICATE', 'UNTRUSTED_CERTIFICATE', 'EXPIRED', 'NOT_YET_VALID',
                            'WRONG_PURPOSE', 'WRONG_NAME', 'REFUSED_BY_PEER', 'SILENT', 'CLOSED',
                            'OTHER')),
    first_seen_wall_us INTEGER NOT NULL,
    last_seen_wall_us  INTEGER NOT NULL,
    calls              INTEGER NOT NULL CHECK (calls >= 1),
    UNIQUE (calling_ae_title, called_ae_title, address, encrypted, certificate_sha256, reason)
) STRICT;

CREATE INDEX caller_by_age ON caller (last_seen_wall_us);
