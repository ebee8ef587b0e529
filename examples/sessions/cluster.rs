//! What Tomcat's server.xml and context.xml say about sessions, for each way of keeping them.
//! It must name every member of a cluster: multicast is not used, the members are listed.
//! Read `fleet.rs` for the servers that get it.

use std::fmt::Write;
use std::net::SocketAddr;

/// How a cluster of Tomcats copies sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// DeltaManager: to all others.
    ToAll,
    /// BackupManager: to one other; the rest know where it is.
    ToOne,
}

/// How the members of a cluster know each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Members {
    /// StaticMembershipService: those that the file names are asked, and whoever asks is taken in.
    Asked,
    /// StaticMembershipInterceptor: those that the file names, nobody else.
    Listed,
}

/// `<Cluster>` of the member at `own`, which knows the members at `others`. An answer is sent when the copies are acknowledged as
/// taken over: 6 is "use acknowledgements" (2) and "synchronous acknowledgement" (4).
pub fn cluster(copies: Copies, members: Members, own: SocketAddr, others: &[SocketAddr]) -> String {
    let manager = match copies {
        Copies::ToAll => {
            r#"<Manager className="org.apache.catalina.ha.session.DeltaManager" expireSessionsOnShutdown="false"/>"#
        }
        Copies::ToOne => {
            r#"<Manager className="org.apache.catalina.ha.session.BackupManager" mapSendOptions="6"/>"#
        }
    };
    let mut listed = member("LocalMember", own);
    for other in others {
        listed.push_str(&member("Member", *other));
    }
    // 3 starts sender and receiver, but no membership by multicast.
    let (start, membership, interceptors) = match members {
        Members::Asked => {
            let service = format!(
                r#"    <Membership className="org.apache.catalina.tribes.membership.StaticMembershipService" useThread="true" pingInterval="1000" expirationTime="5000">
{listed}    </Membership>
"#
            );
            ("15", service, String::new())
        }
        Members::Listed => {
            let interceptors = format!(
                r#"    <Interceptor className="org.apache.catalina.tribes.group.interceptors.TcpPingInterceptor"/>
    <Interceptor className="org.apache.catalina.tribes.group.interceptors.StaticMembershipInterceptor">
{listed}    </Interceptor>
"#
            );
            ("3", String::new(), interceptors)
        }
    };
    format!(
        r#"<Cluster className="org.apache.catalina.ha.tcp.SimpleTcpCluster" channelSendOptions="6" channelStartOptions="{start}">
  {manager}
  <Channel className="org.apache.catalina.tribes.group.GroupChannel">
{membership}    <Receiver className="org.apache.catalina.tribes.transport.nio.NioReceiver" address="{}" port="{}" autoBind="1" maxThreads="8"/>
    <Sender className="org.apache.catalina.tribes.transport.ReplicationTransmitter">
      <Transport className="org.apache.catalina.tribes.transport.nio.PooledParallelSender" poolSize="16"/>
    </Sender>
    <Interceptor className="org.apache.catalina.tribes.group.interceptors.TcpFailureDetector"/>
    <Interceptor className="org.apache.catalina.tribes.group.interceptors.MessageDispatchInterceptor"/>
{interceptors}  </Channel>
  <Valve className="org.apache.catalina.ha.tcp.ReplicationValve"/>
  <ClusterListener className="org.apache.catalina.ha.session.ClusterSessionListener"/>
</Cluster>
"#,
        own.ip(),
        own.port()
    )
}

/// The port serves as the member's unique number, too.
fn member(element: &str, address: SocketAddr) -> String {
    let [high, low] = address.port().to_be_bytes();
    let mut text = String::new();
    writeln!(
        text,
        r#"      <{element} className="org.apache.catalina.tribes.membership.StaticMember" host="{}" port="{}" uniqueId="{{0,0,0,0,0,0,0,0,0,0,0,0,0,0,{},{}}}"/>"#,
        address.ip(),
        address.port(),
        high as i8,
        low as i8,
    )
    .expect("a string grows");
    text
}

/// `<Context>`'s part for sessions in PostgreSQL. A save deletes the row and inserts it again: without a transaction around both, a
/// server that is killed in between loses the session, and with automatic commits there is none.
pub fn persistent_manager(database: &str) -> String {
    format!(
        r#"<Resource name="jdbc/sessions" auth="Container" type="javax.sql.DataSource" driverClassName="org.postgresql.Driver"
          url="{database}" maxTotal="16" maxIdle="16" defaultAutoCommit="false"/>
<Valve className="org.apache.catalina.valves.PersistentValve"/>
<Manager className="org.apache.catalina.session.PersistentManager" maxIdleSwap="-1" maxIdleBackup="-1" minIdleSwap="-1"
         saveOnRestart="true" sessionAttributeValueClassNameFilter="">
  <Store className="org.apache.catalina.session.DataSourceStore" localDataSource="true" dataSourceName="jdbc/sessions"
         sessionTable="sessions" sessionIdCol="id" sessionAppCol="app" sessionDataCol="data" sessionValidCol="valid"
         sessionMaxInactiveCol="max_inactive" sessionLastAccessedCol="last_access"/>
</Manager>
"#
    )
}
