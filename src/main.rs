//! The `weir` binary: picks the allocator and hands over to the command line.
//! It must hold no logic of its own.
//! The walk goes on in `cli/mod.rs`.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    weir::cli::main()
}
