package control

import "net"

// peerOf takes every caller as admitted: the ACL of the pipe has let it in.
func peerOf(net.Conn) (Peer, error) { return Peer{Admitted: true}, nil }
