-- The Gumbel noise of a document, as dsir/noise.py makes it (`gumbel_noise`). What belongs here: its
-- integer arithmetic and the logarithms. What does not: who needs it (macros_why.sql).
--
-- DuckDB stops at an integer that overflows, so sums and products modulo 2^64 are taken in 128 bits. ln() may
-- differ in the last bit from the project's own logarithm: keys computed here agree with those of the picks
-- to about 1e-14, not to the bit.

CREATE OR REPLACE MACRO plus64(a, b) AS
    ((a::UHUGEINT + b::UHUGEINT) & 18446744073709551615::UHUGEINT)::UBIGINT;

CREATE OR REPLACE MACRO times64(a, b) AS
    ((a::UHUGEINT * b::UHUGEINT) & 18446744073709551615::UHUGEINT)::UBIGINT;

CREATE OR REPLACE MACRO fold64(x, bits) AS xor(x, x >> bits);

-- SplitMix64's output function; the factors are K2 and K3 of dsir/featurizer/hashing.py.
CREATE OR REPLACE MACRO mix64(x) AS
    fold64(times64(fold64(times64(fold64(x, 30), 13787848793156543929), 27), 10723151780598845931), 31);

-- Rotation by 32 bits.
CREATE OR REPLACE MACRO rotate64(x) AS (x & 4294967295) * 4294967296 + (x >> 32);

CREATE OR REPLACE MACRO gumbel_of(x) AS -ln(-ln(((x >> 12)::DOUBLE + 0.5) / 4503599627370496));

-- gumbel_noise(content_hash, noise_key): the noise of a document of this content. The key is that of a
-- selection and target: sixteen hexadecimal digits, in the lineage of the selection as
-- metadata->>'noise_keys'->>target.
CREATE OR REPLACE MACRO gumbel_noise(content_hash, noise_key) AS gumbel_of(mix64(xor(
    mix64(plus64(content_hash, ('0x' || noise_key)::UBIGINT)), rotate64(('0x' || noise_key)::UBIGINT)
)));
