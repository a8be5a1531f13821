//! Nothing of its own: the plugin's C symbols come from the crate that is linked here.

extern crate gstwebrtchttp as _;
