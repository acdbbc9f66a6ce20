#!/usr/bin/env bash
# Writes the file $MEMBUDGET_COMMENT as a comment of pull request $MEMBUDGET_PULL_REQUEST, in place of an earlier one with the
# same first line. Needs GitHub's command line and GH_TOKEN.
set -euo pipefail

marker=$(head -n 1 "$MEMBUDGET_COMMENT")
comments="repos/$GITHUB_REPOSITORY/issues/$MEMBUDGET_PULL_REQUEST/comments"
MARKER=$marker
export MARKER
earlier=$(gh api --paginate "$comments" \
    --jq '.[] | select(.user.type == "Bot" and (.body | startswith(env.MARKER))) | .id' | head -n 1)
if [ -n "$earlier" ]; then
    gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$earlier" --field "body=@$MEMBUDGET_COMMENT" --silent
else
    gh api --method POST "$comments" --field "body=@$MEMBUDGET_COMMENT" --silent
fi
