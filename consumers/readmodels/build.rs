//! Builds again when there is another migration: the macro that embeds them sees only the files it has.

fn main() {
    println!("cargo:rerun-if-changed=../ledger/migrations");
}
