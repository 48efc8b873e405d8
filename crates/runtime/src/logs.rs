//! Reading logs in docker's json-file format.
