package kvtest

import (
	"net"
	"strings"
)

// cloud is one set of host names, with the port where there is one.
type cloud struct{ login, vault, hsm string }

// own is the server's, on loopback.
func (s *Server) own() cloud {
	host := net.JoinHostPort("localhost", s.port)
	return cloud{login: host, vault: host, hsm: "managedhsm." + host}
}

// azure returns the names of the real clouds.
func azure() []cloud {
	return []cloud{
		{"login.microsoftonline.com", "vault.azure.net", "managedhsm.azure.net"},
		{"login.chinacloudapi.cn", "vault.azure.cn", "managedhsm.azure.cn"},
		{"login.microsoftonline.us", "vault.usgovcloudapi.net", "managedhsm.usgovcloudapi.net"},
	}
}

// clouds are those that the server answers for.
func (s *Server) clouds() []cloud {
	all := []cloud{s.own()}
	if s.opts.Azure {
		all = append(all, azure()...)
	}
	return all
}

// hosts are the names that the certificate is for.
func (s *Server) hosts() []string {
	hosts := []string{"localhost", "*.localhost", "*.managedhsm.localhost"}
	for _, name := range s.opts.Vaults { // not every client takes *.localhost
		hosts = append(hosts, name+".localhost", name+".managedhsm.localhost")
	}
	if s.opts.Azure {
		for _, c := range azure() {
			hosts = append(hosts, c.login, "*."+c.vault, "*."+c.hsm)
		}
	}
	return hosts
}

// place is what a host name stands for: Entra if vault is nil.
type place struct {
	cloud    cloud
	vault    *vault
	base     string // the vault's address, as the client wrote it
	resource string // the audience of its tokens
}

// find resolves a host name of a request. s.mu is held.
func (s *Server) find(host string) (place, bool) {
	host = strings.TrimSuffix(strings.ToLower(host), ":443")
	for _, c := range s.clouds() {
		if host == c.login {
			return place{cloud: c}, true
		}
		parent := c.vault
		if s.opts.ManagedHSM {
			parent = c.hsm
		}
		name, ok := strings.CutSuffix(host, "."+parent)
		if v := s.vaults[name]; ok && v != nil && !v.gone {
			return place{cloud: c, vault: v, base: "https://" + host, resource: "https://" + parent}, true
		}
	}
	return place{}, false
}

// resource tells whether tokens may be asked for it. One slash at its end is
// allowed, and is part of the token's audience, as at Entra: the vault then refuses
// the token.
func (s *Server) resource(name string) bool {
	name = strings.TrimSuffix(name, "/")
	for _, c := range s.clouds() {
		if name == "https://"+c.vault || name == "https://"+c.hsm {
			return true
		}
	}
	return false
}
