package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
)

var (
	errTrailing = errors.New("there is more after the JSON object")
	errPathsRaw = errors.New("paths_raw and paths differ in length")
	errNoPeer   = errors.New("request did not come over a socket")
)

const nextVersion = "use a coffer of the agent's version: coffer version shows both"

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Backend Backend
	Logger  *slog.Logger
	// Role decides what a caller may do; Access.Role is one.
	Role func(Peer) Role
	// Version is told in every reply, so that a client of another version notices.
	Version string
}

// Server answers on the control socket.
type Server struct {
	cfg ServerConfig
	mux *http.ServeMux
}

// NewServer returns a server that is ready to serve.
func NewServer(cfg ServerConfig) *Server {
	s := &Server{cfg: cfg, mux: http.NewServeMux()}
	for _, r := range s.routes() {
		s.mux.Handle(r.pattern, s.guard(r))
	}
	s.mux.Handle("/", s.guard(route{need: RoleViewer, serve: s.unknown}))
	return s
}

// Serve answers on l until ctx ends, then lets replies under way finish for a few
// seconds. It closes l. It returns nil after ctx has ended.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       s.identify,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve control socket: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if srv.Shutdown(drain) != nil {
		srv.Close()
	}
	<-served
	return nil
}

// identify notes who is at the other end of a new connection.
func (s *Server) identify(ctx context.Context, conn net.Conn) context.Context {
	p, err := peerOf(conn)
	if err != nil {
		s.cfg.Logger.Warn("control caller is unknown", "err", err)
		p = Peer{unknown: err}
	}
	return WithPeer(ctx, p)
}

// ServeHTTP answers one request. Its context must have a Peer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(headerVersion, s.cfg.Version)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	if err := fromBrowser(r); err != nil {
		s.fault(w, r, err)
		return
	}
	s.mux.ServeHTTP(w, r)
}

// fromBrowser refuses what a web page could send through somebody's browser.
func fromBrowser(r *http.Request) error {
	if r.Host != socketHostname && r.Host != "localhost" {
		return &Error{Code: CodeForbidden, Message: fmt.Sprintf("host %q is not this agent", r.Host)}
	}
	for _, h := range []string{"Origin", "Referer"} {
		if r.Header.Get(h) != "" {
			return &Error{Code: CodeForbidden, Message: "requests of web pages are refused"}
		}
	}
	return nil
}

// route is one verb and the least role that may use it. An error of serve is
// sent to the caller.
type route struct {
	pattern string
	need    Role
	serve   func(http.ResponseWriter, *http.Request) error
}

// guard lets those in who may, and turns what goes wrong into a reply.
func (s *Server) guard(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		rec := &recorder{ResponseWriter: w}
		defer s.caught(rec, req)
		peer := PeerFrom(req.Context())
		if have := s.cfg.Role(peer); have < r.need || have == RoleNone {
			s.cfg.Logger.Warn("control caller refused", "peer", peer.String(), "method", req.Method, "path", req.URL.Path)
			s.fault(rec, req, forbidden(peer, have, r.need))
			return
		}
		if err := r.serve(rec, req); err != nil {
			s.fault(rec, req, err)
		}
	})
}

// caught ends a request whose handler panicked: the agent goes on.
func (s *Server) caught(rec *recorder, req *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint // the documented comparison
		panic(v)
	}
	s.cfg.Logger.Error("control request panicked", "method", req.Method, "path", req.URL.Path,
		"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	s.fault(rec, req, &Error{Code: CodeInternal, Message: "a bug in the agent", Next: "see its log, and report it"})
}

// fault sends err. If a reply has begun, it tears it: the caller sees that it is
// not whole.
func (s *Server) fault(w http.ResponseWriter, _ *http.Request, err error) {
	if rec, ok := w.(*recorder); ok && rec.wrote {
		panic(http.ErrAbortHandler)
	}
	e := AsError(err)
	s.reply(w, e.Code.httpStatus(), errorBody{e})
}

type errorBody struct {
	Error *Error `json:"error"`
}

// reply sends v as JSON. That it does not arrive is the caller's loss alone.
func (s *Server) reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Errorf("encode reply: %w", err))
	}
	w.Header().Set("Content-Type", contentJSON)
	w.WriteHeader(status)
	w.Write(append(b, '\n')) //nolint:errcheck // see above
}

func (s *Server) unknown(_ http.ResponseWriter, r *http.Request) error {
	return &Error{
		Code: CodeNotFound, Message: fmt.Sprintf("this agent (%s) has no %s %s", s.cfg.Version, r.Method, r.URL.Path),
		Next: nextVersion,
	}
}

// recorder knows whether a reply has begun.
type recorder struct {
	http.ResponseWriter
	wrote bool
}

func (r *recorder) WriteHeader(status int) {
	r.wrote = true
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
