# docker diff, export, commit.

test_diff() {
    docker run --name c1 $IMG sh -c 'touch /added; rm /etc/group; echo x >>/etc/passwd; mkdir /dir; touch /dir/file' >/dev/null
    eq "$(docker diff c1 | sort | tr '\n' ' ')" 'A /added A /dir A /dir/file C /etc C /etc/passwd D /etc/group '
}

test_diff_of_a_fresh_container() {
    docker create --name c1 $IMG true >/dev/null
    eq "$(docker diff c1)" ''
}

test_export_and_import() {
    docker run --name c1 $IMG sh -c 'echo data >/made' >/dev/null
    docker export c1 >fs.tar
    has "$(tar -tf fs.tar)" made
    has "$(tar -tf fs.tar)" bin/busybox
    docker import -c 'CMD ["cat","/made"]' -c 'ENV A=b' -m 'the message' fs.tar imported:1 >/dev/null
    eq "$(docker run --rm imported:1)" data
    has "$(docker run --rm imported:1 env)" A=b
    has "$(docker history --no-trunc imported:1)" 'the message'
    docker rmi imported:1 >/dev/null
}

test_import_from_stdin_compressed() {
    docker create --name c1 $IMG true >/dev/null
    docker export c1 | gzip -1 | docker import - imported:gz >/dev/null
    ok docker run --rm imported:gz /bin/true
    docker rmi imported:gz >/dev/null
}

test_commit() {
    docker run --name c1 $IMG sh -c 'echo kept >/kept; rm /etc/group' >/dev/null
    docker commit -m note -a me -c 'CMD ["cat","/kept"]' -c 'EXPOSE 80' -c 'ENV X=y' -c 'LABEL l=v' -c 'WORKDIR /etc' -c 'USER user' -c 'VOLUME /vol' c1 made:1 >/dev/null
    eq "$(docker run --rm made:1)" kept
    fails 1 docker run --rm made:1 cat /etc/group
    eq "$(docker image inspect -f '{{.Config.WorkingDir}} {{.Config.User}} {{.Config.Labels.l}} {{.Comment}} {{.Author}}' made:1)" '/etc user v note me'
    has "$(docker image inspect -f '{{json .Config.ExposedPorts}}{{json .Config.Volumes}}' made:1)" 80/tcp
    eq "$(docker image inspect -f '{{len .RootFS.Layers}}' made:1)" 2
    docker rmi made:1 >/dev/null
}

test_commit_of_a_running_container() {
    docker run -d --name c1 $IMG sh -c 'echo 1 >/f; sleep 60' >/dev/null
    until_eq 5 1 docker exec c1 cat /f
    docker commit c1 made:2 >/dev/null
    eq "$(state c1)" running
    eq "$(docker run --rm made:2 cat /f)" 1
    docker rmi made:2 >/dev/null
}

test_volumes_are_not_committed() {
    docker run --name c1 -v /vol $IMG sh -c 'echo x >/vol/f' >/dev/null
    docker commit c1 made:3 >/dev/null
    fails 1 docker run --rm made:3 cat /vol/f
    docker rmi -f made:3 >/dev/null
}

test_commit_chain() {
    docker run --name c1 $IMG touch /one >/dev/null
    docker commit c1 chain:1 >/dev/null
    docker run --name c2 chain:1 sh -c 'touch /two; rm /one' >/dev/null
    docker commit c2 chain:2 >/dev/null
    eq "$(docker run --rm chain:2 sh -c 'ls / | grep -E "^(one|two)$"')" two
    docker rm c1 c2 >/dev/null; docker rmi chain:2 chain:1 >/dev/null
}
