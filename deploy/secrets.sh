#!/bin/sh
# Makes the passwords that deploy/compose.yaml and deploy/compose.one-node.yaml use, once, as files in deploy/secrets:
#
#     deploy/secrets.sh
#
# The users are those of deploy/rabbitmq/permissions.json and deploy/redis/users.acl, and no others. The directory is its
# owner's alone; its files can be read by whoever has them mounted, as the users inside of images have any number.
set -eu
cd "$(dirname "$0")"
if [ -e secrets ]; then
    echo "secrets.sh: deploy/secrets is there already; remove it, and the volumes made with it, to begin anew" >&2
    exit 1
fi
umask 022
mkdir -m 700 secrets.new
trap 'rm -rf secrets.new' EXIT

password() {
    od -An -tx1 -N24 /dev/urandom | tr -d ' \n'
}

# amqp_urls USER PASSWORD NODE...: one URL of all nodes.
amqp_urls() {
    urls=$1:$2
    shift 2
    separator=''
    for node in "$@"; do
        printf '%samqp://%s@%s:5672/' "$separator" "$urls" "$node"
        separator=,
    done
}

rabbitmq_users=''
for user in $(sed -n 's/.*"user": "switchboard-\([a-z-]*\)".*/\1/p' rabbitmq/permissions.json | sort -u); do
    secret=$(password)
    rabbitmq_users="$rabbitmq_users${rabbitmq_users:+, }{\"name\": \"switchboard-$user\", \"password\": \"$secret\", \"tags\": []}"
    amqp_urls "switchboard-$user" "$secret" rabbitmq-1 rabbitmq-2 rabbitmq-3 >"secrets.new/amqp_url_$user"
    amqp_urls "switchboard-$user" "$secret" rabbitmq-1 >"secrets.new/amqp_url_${user}_one_node"
done
printf '{"vhosts": [{"name": "/"}], "users": [%s]}\n' "$rabbitmq_users" >secrets.new/rabbitmq_users.json

cp redis/users.acl secrets.new/redis_users.acl
for user in operator worker; do
    secret=$(password)
    hash=$(printf %s "$secret" | sha256sum | cut -d ' ' -f 1)
    sed -i "/^user switchboard-$user /s/\$/ on #$hash/" secrets.new/redis_users.acl
    printf 'redis://switchboard-%s:%s@redis:6379/0' "$user" "$secret" >"secrets.new/redis_url_$user"
done

printf 'RABBITMQ_ERLANG_COOKIE=%s\n' "$(password)" >secrets.new/rabbitmq.env
password >secrets.new/grafana_password
mv secrets.new secrets
echo "secrets.sh: made deploy/secrets"
