//! Loop devices: attach, find, grow and detach them by ioctls, without `losetup`.
