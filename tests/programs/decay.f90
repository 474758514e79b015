! Reads a namelist, writes columns: time and the state of u' = -rate u**order.
program decay
  implicit none
  real(8) :: rate = 1d0, start = 1d0, u, h
  integer :: order = 1, k, steps = 50
  namelist /run/ rate, start, order
  open (10, file='run.nml', status='old')
  read (10, nml=run)
  close (10)
  if (rate < 0) stop 3
  u = start
  h = 1d0/steps
  open (11, file='state.dat')
  write (11, '(a)') '# time  state'
  do k = 0, steps
    write (11, '(2d24.16)') k*h, u
    if (u > 10d0) exit
    u = u*exp(-rate*h*u**(order - 1))
  end do
end program decay
