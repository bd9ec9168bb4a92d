-- Inputs that several outputs share.
SELECT to_json(inputs)::VARCHAR AS inputs FROM input_lists WHERE digest = $digest;
