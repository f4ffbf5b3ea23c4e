//! Child processes that never outlive us.

use std::process::Command;

use nix::sys::signal::Signal;

/// Have the kernel send `signal` to the child when the thread that spawned it ends.
///
/// The rule follows the *thread*: spawn from one that lives as long as the process. It survives `exec`, so the
/// program itself needs no help, and it holds when we are killed with `SIGKILL`.
#[expect(unsafe_code, reason = "`pre_exec` is the only door to prctl in the child")]
pub fn die_with_parent(command: &mut Command, signal: Signal) -> &mut Command {
    use std::os::unix::process::CommandExt;
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid and raise.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(signal)?;
            // The parent may have died before the rule was set.
            if nix::unistd::getppid() != parent {
                nix::sys::signal::raise(Signal::SIGKILL)?;
            }
            Ok(())
        })
    }
}
