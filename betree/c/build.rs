//! Names the interface version in the shared library: programs look for it under that name.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libbetree.so.0");
}
