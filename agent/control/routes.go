package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
)

// routes is the table of all verbs.
func (s *Server) routes() []route {
	b := s.cfg.Backend
	return []route{
		{"GET /v1/status", RoleViewer, get(s, func(r *http.Request) (Status, error) { return b.Status(r.Context()) })},
		{"GET /v1/version", RoleViewer, get(s, func(r *http.Request) (Version, error) { return b.Version(r.Context()) })},
		{"POST /v1/config/check", RoleViewer, post(s, http.StatusOK, b.CheckConfig)},
		{"POST /v1/audit/verify", RoleViewer, post(s, http.StatusOK, b.VerifyAudit)},

		{"GET /v1/vaults", RoleViewer, list(s, func(r *http.Request) ([]Vault, error) { return b.Vaults(r.Context()) })},
		{"GET /v1/vaults/{vault}", RoleViewer, get(s, func(r *http.Request) (Vault, error) {
			return b.Vault(r.Context(), r.PathValue("vault"))
		})},
		{"POST /v1/vaults", RoleKeyAdmin, post(s, http.StatusCreated, b.CreateVault)},
		{"POST /v1/vaults/mode", RoleKeyAdmin, post(s, http.StatusAccepted, checked(checkMode, b.RaiseMode))},
		{"GET /v1/keys", RoleViewer, list(s, func(r *http.Request) ([]Key, error) { return b.Keys(r.Context()) })},
		{"POST /v1/keys", RoleKeyAdmin, post(s, http.StatusCreated, b.CreateKey)},
		{"GET /v1/keys/{key}/usage", RoleViewer, get(s, func(r *http.Request) (KeyUsage, error) {
			return b.KeyUsage(r.Context(), KeyUsageRequest{Key: r.PathValue("key"), Version: r.URL.Query().Get("version")})
		})},
		{"POST /v1/keys/check", RoleOperator, post(s, http.StatusOK, b.CheckKey)}, // it asks the provider to unwrap
		{"POST /v1/keys/link", RoleKeyAdmin, post(s, http.StatusOK, checked(checkLink, b.LinkKey))},
		{"POST /v1/keys/rotate", RoleKeyAdmin, post(s, http.StatusAccepted, b.RotateKeys)},
		{"POST /v1/keys/revalidate", RoleKeyAdmin, post(s, http.StatusOK, b.Revalidate)},
		{"POST /v1/keys/drill", RoleKeyAdmin, post(s, http.StatusAccepted, b.DrillKeys)},

		{"GET /v1/items", RoleViewer, list(s, func(r *http.Request) ([]Item, error) { return b.Items(r.Context()) })},
		{"GET /v1/items/{item}", RoleViewer, get(s, func(r *http.Request) (Item, error) {
			return b.Item(r.Context(), r.PathValue("item"))
		})},
		{"POST /v1/items/erase", RoleKeyAdmin, post(s, http.StatusOK, checked(checkErase, b.EraseItem))},
		{"GET /v1/points", RoleViewer, list(s, func(r *http.Request) ([]Point, error) {
			return b.Points(r.Context(), r.URL.Query().Get("item"))
		})},
		{"GET /v1/items/{item}/points/{point}", RoleViewer, get(s, func(r *http.Request) (Point, error) {
			return b.Point(r.Context(), r.PathValue("item"), r.PathValue("point"))
		})},
		{"GET /v1/items/{item}/points/{point}/entries", RoleRestorer, s.entries},
		{"GET /v1/items/{item}/points/{point}/diff", RoleRestorer, s.diff},
		{"GET /v1/items/{item}/points/{point}/content", RoleRestorer, s.content},

		{"POST /v1/backup", RoleOperator, post(s, http.StatusAccepted, b.Backup)},
		{"POST /v1/restore", RoleRestorer, post(s, http.StatusAccepted, checked(checkRestore, b.Restore))},
		{"POST /v1/verify", RoleOperator, post(s, http.StatusAccepted, checked(checkVerify, b.Verify))},

		{"GET /v1/jobs", RoleViewer, list(s, s.jobs)},
		{"GET /v1/jobs/{id}", RoleViewer, get(s, s.job)},
		{"POST /v1/jobs/{id}/cancel", RoleOperator, get(s, s.cancel)},
		{"GET /v1/jobs/{id}/events", RoleViewer, s.events},
		{"PUT /v1/jobs/{id}/input", RoleOperator, s.input},
	}
}

// get serves a value that needs no request body.
func get[T any](s *Server, f func(*http.Request) (T, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := f(r)
		if err == nil {
			s.reply(w, http.StatusOK, v)
		}
		return err
	}
}

// list serves a list, which is never null.
func list[T any](s *Server, f func(*http.Request) ([]T, error)) func(http.ResponseWriter, *http.Request) error {
	return get(s, func(r *http.Request) ([]T, error) {
		v, err := f(r)
		if v == nil {
			v = []T{}
		}
		return v, err
	})
}

// post serves the answer to a JSON object.
func post[Q, A any](s *Server, status int, f func(context.Context, Q) (A, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var q Q
		if err := readBody(w, r, &q); err != nil {
			return err
		}
		a, err := f(r.Context(), q)
		if err == nil {
			s.reply(w, status, a)
		}
		return err
	}
}

// readBody reads the JSON object of a request.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	err := decodeStrict(http.MaxBytesReader(w, r.Body, maxBody), v)
	if err == nil {
		return nil
	}
	e := &Error{Code: CodeBadRequest, Message: fmt.Sprintf("read request: %v", err)}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		e.Message = fmt.Sprintf("read request: it is larger than %d bytes", large.Limit)
	}
	return e
}

// checked runs check before f.
func checked[Q, A any](check func(Q) error, f func(context.Context, Q) (A, error)) func(context.Context, Q) (A, error) {
	return func(ctx context.Context, q Q) (A, error) {
		if err := check(q); err != nil {
			var none A
			return none, err
		}
		return f(ctx, q)
	}
}

// checkRestore refuses what cannot be meant, before anything is read.
func checkRestore(q RestoreRequest) error {
	if !filepath.IsAbs(q.Target) {
		return &Error{Code: CodeBadRequest, Message: fmt.Sprintf("target %q is not an absolute path", q.Target)}
	}
	switch q.Overwrite {
	case "", OverwriteIfDifferent, OverwriteNever, OverwriteAlways:
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: fmt.Sprintf("overwrite %q is not known", string(q.Overwrite)),
		Next: "use if-different, never or always",
	}
}

// checkVerify refuses a level that does not exist.
func checkVerify(q VerifyRequest) error {
	switch q.Level {
	case "", VerifyStructure, VerifyData:
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: fmt.Sprintf("level %q is not known", string(q.Level)),
		Next: "use structure or data",
	}
}

// checkLink refuses to link a key that would also wrap.
func checkLink(q KeyLink) error {
	switch {
	case q.URI == "":
		return &Error{Code: CodeBadRequest, Message: "the key's uri is missing"}
	case q.RestoreOnly || q.Unlink:
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: "a key is linked to open what is there, and never to wrap",
		Next: "set restore_only; a key that also wraps belongs into the configuration",
	}
}

// checkMode refuses every mode that a vault cannot be raised to.
func checkMode(q VaultMode) error {
	if q.Mode == ModeCustomerManaged {
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: fmt.Sprintf("a vault's mode is raised to %s and never lowered, and this asks for %q", ModeCustomerManaged, q.Mode),
		Next: "for keys in files, make another vault",
	}
}

// checkErase refuses an erasure that does not name its item twice.
func checkErase(q ItemErase) error {
	if q.Item != "" && q.Confirm == q.Item {
		return nil
	}
	return &Error{
		Code: CodeBadRequest, Message: fmt.Sprintf("erasing item %q is confirmed with %q", q.Item, q.Confirm),
		Next: "confirm with the item's own name",
	}
}

func (s *Server) jobs(r *http.Request) ([]Job, error) {
	q := r.URL.Query()
	f := JobFilter{Item: q.Get("item"), State: JobState(q.Get("state"))}
	if n := q.Get("limit"); n != "" {
		limit, err := strconv.Atoi(n)
		if err != nil || limit < 0 {
			return nil, &Error{Code: CodeBadRequest, Message: fmt.Sprintf("limit %q is not a number", n)}
		}
		f.Limit = limit
	}
	return s.cfg.Backend.Jobs(r.Context(), f)
}

func (s *Server) job(r *http.Request) (Job, error) {
	id, err := parseID(r.PathValue("id"))
	if err != nil {
		return Job{}, err
	}
	return s.cfg.Backend.Job(r.Context(), id)
}

func (s *Server) cancel(r *http.Request) (struct{}, error) {
	id, err := parseID(r.PathValue("id"))
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, s.cfg.Backend.Cancel(r.Context(), id)
}
