//! Sockets that a weir was given: by the one before it, or by a service manager; and what the service manager is told.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Duration;

use crate::support::datagrams::{Answerer, Caller};
use crate::support::weir::{binary, get, list, plain};
use crate::support::{Client, DEADLINE, Origin, Weir, until};
use crate::upgrade_process::{Staged, echo};

#[test]
fn datagrams_find_their_way_through_an_upgrade() {
    // Answers each question by two answers, the second one late.
    let slow = Answerer::start(|bytes, _| vec![bytes.to_vec()]);
    let config = format!(
        "workers = 2\n[listeners.dns]\nbind = [\"$dns\"]\nprotocol = \"udp\"\n\
         [[routes]]\nlisteners = [\"dns\"]\npool = \"ns\"\n[pools.ns]\nbackends = [{}]\nbalancer = \"maglev\"\n",
        list(&[slow.address])
    );
    let staged = Staged::start(&config);
    let address = staged.weir.address("dns");
    let callers: Vec<Caller> = (0..40).map(|_| Caller::new(address)).collect();
    for caller in &callers {
        assert_eq!(caller.ask("before"), b"before");
    }
    for _ in 0..2 {
        for caller in &callers {
            caller.send("during");
        }
        staged.upgraded();
        for caller in &callers {
            assert_eq!(caller.answer(), b"during");
        }
        for caller in &callers {
            assert_eq!(caller.ask("after"), b"after");
        }
    }
    assert!(staged.weir.await_exit().success(), "its flows have ended");
}

#[test]
fn the_admin_server_stays_at_its_unix_socket() {
    let origin = Origin::named("a");
    let config = plain(&[&origin], "") + "[admin]\nbind = \"unix:$dir/admin.sock\"\n";
    let weir = Weir::launch(&config, |_| {});
    let path = weir.directory.join("admin.sock");
    until("the listener", || {
        Client::try_connect(weir.address("web")).ok()
    });
    until("the socket", || UnixStream::connect(&path).ok());
    let command = |word: &str| {
        let mut command = Command::new(binary());
        command
            .arg(word)
            .arg("-c")
            .arg(&weir.file)
            .env_remove("WEIR_ADMIN");
        command.output().unwrap()
    };
    until("weir to be ready", || {
        command("status").status.success().then_some(())
    });
    let upgraded = command("upgrade");
    let told = String::from_utf8_lossy(&upgraded.stderr).into_owned();
    assert!(upgraded.status.success(), "{told}");
    assert!(weir.await_exit().success());
    assert!(path.exists(), "the file is the new process's now");
    assert!(command("status").status.success());
    let serving = crate::support::process::running(&weir.file.to_string_lossy());
    assert_eq!(serving.len(), 1);
    crate::support::process::signal(serving[0], libc::SIGTERM);
    until("the file to be removed", || (!path.exists()).then_some(()));
}

/// Lets weir be started as a service manager would that holds this listener.
fn activated(command: &mut Command, listener: TcpListener, pid: &str) {
    // A test cannot pass a descriptor by its number, but a shell can.
    let program = command.get_program().to_owned();
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", &format!("export LISTEN_PID={pid} LISTEN_FDS=1 LISTEN_FDNAMES=web; exec \"$0\" \"$@\" 3<&0 </dev/null")])
        .arg(program)
        .args(arguments)
        .stdin(OwnedFd::from(listener));
    shell
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    shell.env_remove("NOTIFY_SOCKET");
    crate::support::process::die_with_parent(&mut shell);
    *command = shell;
}

#[test]
fn a_service_manager_passes_the_sockets_that_it_holds() {
    let origin = echo("a");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Whoever came before weir did waits in the kernel.
    let mut early = Client::connect(address);
    early.send(get("/"));
    let config = plain(&[&origin], "workers = 2").replace("$web", &address.to_string());
    let kept = listener.try_clone().unwrap();
    let weir = Weir::start_with(&config, |command| activated(command, listener, "$$"));
    assert_eq!(early.answer().text(), "a");
    for _ in 0..20 {
        assert_eq!(Client::connect(address).ask(get("/")).text(), "a");
    }
    assert!(!weir.stderr().contains("clients wait in vain"));
    // An upgrade passes them on, though they are not meant for the process that gets them.
    let before = weir.serving();
    assert_eq!(weir.post("/api/v1/upgrade").status(), 200);
    assert_ne!(weir.serving(), before);
    for _ in 0..20 {
        assert_eq!(Client::connect(address).ask(get("/")).text(), "a");
    }
    drop(kept);
}

#[test]
fn a_socket_of_no_listener_is_told_and_one_for_another_process_is_not_taken() {
    let origin = Origin::named("a");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let weir = Weir::start_with(&plain(&[&origin], ""), |command| {
        activated(command, listener, "$$");
    });
    let line = format!("passed a socket of {address}, which no listener binds");
    weir.tells(&line);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let weir = Weir::start_with(&plain(&[&origin], ""), |command| {
        activated(command, listener, "1");
    });
    assert!(!weir.stderr().contains("which no listener binds"));
    assert_eq!(weir.get("/").text(), "a");
}

#[test]
fn the_service_manager_follows_to_the_new_process() {
    let origin = Origin::named("a");
    let path = std::env::temp_dir().join(format!("weir-it-main-pid-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let staged = Staged::start_with(&plain(&[&origin], ""), |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    assert_eq!(next().trim(), "READY=1");
    let process = staged.upgraded();
    assert!(next().contains("RELOADING=1"));
    let told = next();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines, [&*format!("MAINPID={process}"), "READY=1"]);
    assert!(staged.weir.await_exit().success());
    // The old one said nothing more: the new one's is the next word.
    crate::support::process::signal(process, libc::SIGTERM);
    assert_eq!(next().trim(), "STOPPING=1");
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    std::fs::remove_file(&path).unwrap();
}
