"""The compiled featurizer: UTF-8 in, sparse counts of hashed n-grams and counts of words out.

What belongs here: code compiled by Numba that runs over every byte of a pool, the tables it reads, and the form in
which features are stored. What does not: its public face (``dsir.features``), anything that estimates or selects;
what it counts for the quality filter is judged in ``dsir.quality``.

==================  ===================================================================
``kernel``          the entry point: the loop over documents, and the phases that each goes through
``ngram_hashes``    another: the hashes of all n-grams, not counted
``words``           finding and lowercasing words
``unicode_tables``  character classes and lowercase mappings of the running Python
``hashing``         hashes of words and n-grams; XXH64
``sha256``          SHA-256 of many n-grams at once
``memo``            SHA-256 buckets, remembered
``sparse``          from the buckets of one document to sorted counts
``word_counts``     what the quality filter needs to know of a document's words
``packed``          features as they are stored
``checksum``        a checksum of stored features that costs next to nothing
``intrinsics``      instructions that Numba does not offer
==================  ===================================================================
"""
